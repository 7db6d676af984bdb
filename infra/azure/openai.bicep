// Lowtide: an Azure OpenAI account with one batch deployment, and who may use it. Needs storage.bicep's outputs.
targetScope = 'resourceGroup'

@description('First part of all names: lower-case letters and digits.')
@minLength(3)
@maxLength(10)
param name string = 'lowtide'

@description('Region; not every region has every model as a batch deployment.')
param location string = resourceGroup().location

@description('The model behind the deployment.')
param model string = 'gpt-4.1-mini'

@description('Its version, as the model list of the region shows it.')
param modelVersion string = '2025-04-14'

@description('GlobalBatch anywhere in the world, DataZoneBatch in the zone of the region.')
@allowed(['GlobalBatch', 'DataZoneBatch'])
param deploymentType string = 'GlobalBatch'

@description('Quota of the deployment in thousands of enqueued tokens, out of the subscription\'s own.')
@minValue(1)
param capacity int = 1000

@description('Output identityName of storage.bicep: who asks.')
param identityName string

@description('Output storageAccountName of storage.bicep: where batches lie.')
param storageAccountName string

@description('Output subnetId of storage.bicep: from where the worker asks; empty for none.')
param subnetId string

@description('Deny admits that subnet, allowedIps and services that Azure trusts, and nobody else; Allow leaves it to the roles.')
@allowed(['Allow', 'Deny'])
param networkDefault string = 'Deny'

@description('Public IPv4 addresses and ranges that are admitted too, as in storage.bicep.')
param allowedIps array = []

var subnetRules = empty(subnetId) ? [] : [
  {
    id: subnetId
  }
]
var addressRules = [for address in allowedIps: {
  value: address
}]
var openAiContributor = 'a001fd3d-188f-4b5d-821b-7da978bf7442'
var blobContributor = 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' existing = {
  name: identityName
}

resource storage 'Microsoft.Storage/storageAccounts@2023-05-01' existing = {
  name: storageAccountName
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2023-05-01' existing = {
  parent: storage
  name: 'default'
}

resource batches 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' existing = {
  parent: blobs
  name: 'batches'
}

// Batches with a storage account of one's own work with the system-assigned identity alone.
resource account 'Microsoft.CognitiveServices/accounts@2024-10-01' = {
  name: '${name}-${uniqueString(resourceGroup().id, location)}'
  location: location
  kind: 'OpenAI'
  sku: {
    name: 'S0'
  }
  identity: {
    type: 'SystemAssigned'
  }
  properties: {
    customSubDomainName: '${name}-${uniqueString(resourceGroup().id, location)}'
    disableLocalAuth: true
    // The rules below are rules of the public endpoint.
    publicNetworkAccess: 'Enabled'
    networkAcls: {
      bypass: 'AzureServices'
      defaultAction: networkDefault
      ipRules: addressRules
      virtualNetworkRules: subnetRules
    }
  }
}

resource deployment 'Microsoft.CognitiveServices/accounts/deployments@2024-10-01' = {
  parent: account
  name: '${model}-batch'
  sku: {
    name: deploymentType
    capacity: capacity
  }
  properties: {
    model: {
      format: 'OpenAI'
      name: model
      version: modelVersion
    }
    versionUpgradeOption: 'NoAutoUpgrade'
  }
}

resource asks 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account.id, identity.id, openAiContributor)
  scope: account
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', openAiContributor)
  }
}

resource answers 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(batches.id, account.id, blobContributor)
  scope: batches
  properties: {
    principalId: account.identity.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', blobContributor)
  }
}

@description('The endpoint of the azure-batch backend in job files.')
output endpoint string = account.properties.endpoint

@description('Its deployment.')
output deployment string = deployment.name
