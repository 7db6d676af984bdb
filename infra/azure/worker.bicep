// Lowtide: a Prefect worker as a container app with a managed identity. Needs storage.bicep's outputs.
targetScope = 'resourceGroup'

@description('First part of all names: lower-case letters and digits.')
@minLength(3)
@maxLength(10)
param name string = 'lowtide'

@description('Region; by default that of the resource group.')
param location string = resourceGroup().location

@description('The Lowtide image with its tag, as made from infra/compose/Dockerfile.')
param image string

@description('Container registry of this resource group that holds the image; empty for a public one.')
param registryName string = ''

@description('Address of the Prefect server\'s API, such as https://prefect.example.com/api.')
param prefectApiUrl string

@description('The Prefect work pool that is worked off.')
param workPool string = 'lowtide'

@description('Name of the vault\'s secret with the key of Prefect Cloud; empty for a server of your own.')
param prefectApiKeySecret string = ''

@description('Name of the vault\'s secret with user:password of a server of your own; empty where it asks for none.')
param prefectAuthStringSecret string = ''

@description('Output identityName of storage.bicep: who works.')
param identityName string

@description('Output vaultName of storage.bicep: where the secrets lie.')
param vaultName string

@description('Output subnetId of storage.bicep: where the worker is; empty for Azure\'s own network, which networkDefault=Deny shuts out.')
param subnetId string

@description('How many workers; 0 stops all without taking anything down.')
@minValue(0)
@maxValue(10)
param workers int = 1

var acrPull = '7f951dda-4ed3-4680-a7ca-43fe172d538d'

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' existing = {
  name: identityName
}

resource vault 'Microsoft.KeyVault/vaults@2023-07-01' existing = {
  name: vaultName
}

resource registry 'Microsoft.ContainerRegistry/registries@2023-07-01' existing = if (!empty(registryName)) {
  name: empty(registryName) ? 'none00' : registryName
}

resource pullsImage 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(registryName)) {
  name: guid(resourceGroup().id, registryName, identity.id, acrPull)
  scope: registry
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', acrPull)
  }
}

resource logs 'Microsoft.OperationalInsights/workspaces@2022-10-01' = {
  name: '${name}-logs'
  location: location
  properties: {
    retentionInDays: 30
    sku: {
      name: 'PerGB2018'
    }
  }
}

resource apps 'Microsoft.App/managedEnvironments@2024-03-01' = {
  name: '${name}-apps'
  location: location
  properties: {
    appLogsConfiguration: {
      destination: 'log-analytics'
      logAnalyticsConfiguration: {
        customerId: logs.properties.customerId
        sharedKey: logs.listKeys().primarySharedKey
      }
    }
    vnetConfiguration: empty(subnetId) ? null : {
      infrastructureSubnetId: subnetId
      internal: true
    }
    // An environment without profiles takes no subnet below /23, and none that is delegated to it.
    workloadProfiles: [
      {
        name: 'Consumption'
        workloadProfileType: 'Consumption'
      }
    ]
  }
}

var apiKey = empty(prefectApiKeySecret) ? [] : [
  {
    name: 'prefect-api-key'
    keyVaultUrl: '${vault.properties.vaultUri}secrets/${prefectApiKeySecret}'
    identity: identity.id
  }
]
var authString = empty(prefectAuthStringSecret) ? [] : [
  {
    name: 'prefect-auth-string'
    keyVaultUrl: '${vault.properties.vaultUri}secrets/${prefectAuthStringSecret}'
    identity: identity.id
  }
]
var apiKeyEnv = empty(prefectApiKeySecret) ? [] : [
  {
    name: 'PREFECT_API_KEY'
    secretRef: 'prefect-api-key'
  }
]
var authStringEnv = empty(prefectAuthStringSecret) ? [] : [
  {
    name: 'PREFECT_API_AUTH_STRING'
    secretRef: 'prefect-auth-string'
  }
]
var plainEnv = [
  {
    name: 'PREFECT_API_URL'
    value: prefectApiUrl
  }
  {
    name: 'PREFECT_WORKER_WEBSERVER_PORT'
    value: '8080'
  }
  {
    name: 'PREFECT_FLOWS_HEARTBEAT_FREQUENCY'
    value: '30'
  }
  {
    name: 'AZURE_CLIENT_ID'
    value: identity.properties.clientId
  }
]

// There is no ingress: nobody may come in.
resource worker 'Microsoft.App/containerApps@2024-03-01' = {
  name: '${name}-worker'
  location: location
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identity.id}': {}
    }
  }
  dependsOn: [pullsImage]
  properties: {
    managedEnvironmentId: apps.id
    workloadProfileName: 'Consumption'
    configuration: {
      activeRevisionsMode: 'Single'
      registries: empty(registryName) ? [] : [
        {
          server: '${registryName}.azurecr.io'
          identity: identity.id
        }
      ]
      secrets: concat(apiKey, authString)
    }
    template: {
      terminationGracePeriodSeconds: 60
      containers: [
        {
          name: 'worker'
          image: image
          command: ['prefect']
          args: ['worker', 'start', '--pool', workPool, '--type', 'process', '--install-policy', 'never', '--with-healthcheck']
          env: concat(plainEnv, apiKeyEnv, authStringEnv)
          resources: {
            cpu: json('1.0')
            memory: '2Gi'
          }
          probes: [
            {
              type: 'Liveness'
              httpGet: {
                path: '/health'
                port: 8080
              }
              initialDelaySeconds: 60
              periodSeconds: 30
              failureThreshold: 3
            }
          ]
        }
      ]
      scale: {
        minReplicas: workers
        maxReplicas: max(workers, 1)
      }
    }
  }
}

@description('The worker\'s name, for its log.')
output workerName string = worker.name
