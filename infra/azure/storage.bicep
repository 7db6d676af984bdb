// Lowtide: storage for documents, results and batches, a vault for secrets, and the identity that the worker has. Stands alone.
targetScope = 'resourceGroup'

@description('First part of all names: lower-case letters and digits.')
@minLength(3)
@maxLength(10)
param name string = 'lowtide'

@description('Region; by default that of the resource group.')
param location string = resourceGroup().location

@description('Folder of the container "results" that jobs name as output.root.')
param rootPrefix string = 'lowtide'

@description('Copies of the data: Standard_LRS in one building, Standard_ZRS in three.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS'])
param redundancy string = 'Standard_ZRS'

@description('Deny admits the worker\'s subnet, allowedIps and services that Azure trusts, and nobody else; Allow leaves it to the roles.')
@allowed(['Allow', 'Deny'])
param networkDefault string = 'Deny'

@description('Public IPv4 addresses and ranges that are admitted too, such as ["203.0.113.7"]; Azure takes none as /31 or /32.')
param allowedIps array = []

@description('Subnet of the worker, by its id, where you have one; empty to have a network made.')
param subnetId string = ''

@description('Private addresses of the network that is made; from /27 on.')
param networkRange string = '10.64.0.0/24'

@description('Days that replaced and deleted blobs can still be brought back.')
@minValue(1)
@maxValue(365)
param oldVersionDays int = 30

@description('Days after which leftovers of batches are deleted; answers stay for at most 30.')
@minValue(10)
param stagingDays int = 30

@description('Days after which the folders of runs are deleted, journal and rows included: the same documents are bought again then. 0 keeps them.')
@minValue(0)
param runsDays int = 0

@description('Object id of a user, group or application that may list and read the tables and nothing else; empty for none.')
param readerPrincipalId string = ''

var suffix = uniqueString(resourceGroup().id)
var blobReader = '2a2b9908-6ea1-4ae2-8e65-a410df84e7d1'
var blobContributor = 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
var secretsUser = '4633458b-17de-408a-b874-0445c86b69e6'

var makesNetwork = networkDefault == 'Deny' && empty(subnetId)
var workerSubnetId = makesNetwork ? subnet.id : subnetId
var subnetRules = networkDefault == 'Deny' ? [
  {
    id: workerSubnetId
  }
] : []
var addressRules = [for address in allowedIps: {
  value: address
}]

// Service endpoints cost nothing, and tell storage, vault and Azure OpenAI which subnet a request is from.
resource network 'Microsoft.Network/virtualNetworks@2024-01-01' = if (makesNetwork) {
  name: '${name}-network'
  location: location
  properties: {
    addressSpace: {
      addressPrefixes: [networkRange]
    }
    // Here, and not as a resource of its own: a network that is deployed again loses the subnets that it does not name.
    subnets: [
      {
        name: 'worker'
        properties: {
          addressPrefix: networkRange
          delegations: [
            {
              name: 'apps'
              properties: {
                serviceName: 'Microsoft.App/environments'
              }
            }
          ]
          serviceEndpoints: [
            {
              service: 'Microsoft.Storage'
            }
            {
              service: 'Microsoft.KeyVault'
            }
            {
              service: 'Microsoft.CognitiveServices'
            }
          ]
        }
      }
    ]
  }
}

resource subnet 'Microsoft.Network/virtualNetworks/subnets@2024-01-01' existing = {
  parent: network
  name: 'worker'
}

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: '${name}-worker'
  location: location
}

resource account 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: '${name}${suffix}'
  location: location
  kind: 'StorageV2'
  sku: {
    name: redundancy
  }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    networkAcls: {
      bypass: 'AzureServices'
      defaultAction: networkDefault
      ipRules: addressRules
      virtualNetworkRules: subnetRules
    }
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2023-05-01' = {
  parent: account
  name: 'default'
  properties: {
    isVersioningEnabled: true
    deleteRetentionPolicy: {
      enabled: true
      days: oldVersionDays
    }
    containerDeleteRetentionPolicy: {
      enabled: true
      days: oldVersionDays
    }
  }
}

resource documents 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' = {
  parent: blobs
  name: 'documents'
  properties: {
    publicAccess: 'None'
  }
}

resource results 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' = {
  parent: blobs
  name: 'results'
  properties: {
    publicAccess: 'None'
  }
}

resource batches 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' = {
  parent: blobs
  name: 'batches'
  properties: {
    publicAccess: 'None'
  }
}

var lasting = [
  {
    name: 'batches'
    enabled: true
    type: 'Lifecycle'
    definition: {
      filters: {
        blobTypes: ['blockBlob']
        prefixMatch: ['batches/']
      }
      actions: {
        baseBlob: {
          delete: {
            daysAfterModificationGreaterThan: stagingDays
          }
        }
      }
    }
  }
  {
    name: 'versions'
    enabled: true
    type: 'Lifecycle'
    definition: {
      filters: {
        blobTypes: ['blockBlob']
      }
      actions: {
        version: {
          delete: {
            daysAfterCreationGreaterThan: oldVersionDays
          }
        }
      }
    }
  }
]

// A filter is a prefix here, and raw/ and requests/ stand behind job, window and run: only whole runs can be named.
var passing = [
  {
    name: 'runs'
    enabled: true
    type: 'Lifecycle'
    definition: {
      filters: {
        blobTypes: ['blockBlob']
        prefixMatch: ['results/${rootPrefix}/runs/']
      }
      actions: {
        baseBlob: {
          delete: {
            daysAfterModificationGreaterThan: runsDays
          }
        }
      }
    }
  }
]

resource lifecycle 'Microsoft.Storage/storageAccounts/managementPolicies@2023-05-01' = {
  parent: account
  name: 'default'
  properties: {
    policy: {
      rules: concat(lasting, runsDays > 0 ? passing : [])
    }
  }
}

resource vault 'Microsoft.KeyVault/vaults@2023-07-01' = {
  name: '${name}${take(suffix, 10)}'
  location: location
  properties: {
    tenantId: subscription().tenantId
    sku: {
      family: 'A'
      name: 'standard'
    }
    enableRbacAuthorization: true
    enableSoftDelete: true
    enablePurgeProtection: true
    networkAcls: {
      bypass: 'AzureServices'
      defaultAction: networkDefault
      ipRules: addressRules
      virtualNetworkRules: subnetRules
    }
  }
}

resource readsDocuments 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(documents.id, identity.id, blobReader)
  scope: documents
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', blobReader)
  }
}

resource keepsResults 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(results.id, identity.id, blobContributor)
  scope: results
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', blobContributor)
  }
}

resource writesBatches 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(batches.id, identity.id, blobContributor)
  scope: batches
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', blobContributor)
  }
}

resource readsSecrets 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault.id, identity.id, secretsUser)
  scope: vault
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', secretsUser)
  }
}

// Reading and listing are one right to Azure: the first part of the condition holds the one to tables/, the second the other.
var blobType = 'Microsoft.Storage/storageAccounts/blobServices/containers/blobs'
var reads = 'ActionMatches{\'${blobType}/read\'}'
var lists = 'SubOperationMatches{\'Blob.List\'}'
var tables = '${rootPrefix}/tables'
var isTable = '@Resource[${blobType}:path] StringStartsWith \'${tables}/\''
var asksForTables = '@Request[${blobType}:prefix] StringStartsWith \'${tables}/\' OR @Request[${blobType}:prefix] StringEquals \'${tables}\''

resource readsTables 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(readerPrincipalId)) {
  name: guid(results.id, readerPrincipalId, blobReader)
  scope: results
  properties: {
    principalId: readerPrincipalId
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', blobReader)
    conditionVersion: '2.0'
    condition: '((!(${reads} AND NOT ${lists})) OR (${isTable})) AND ((!(${reads} AND ${lists})) OR (${asksForTables}))'
  }
}

@description('The address for output.root in job files.')
output root string = 'abfs://results@${account.name}.dfs.${environment().suffixes.storage}/${rootPrefix}'

@description('Where documents go.')
output source string = 'abfs://documents@${account.name}.dfs.${environment().suffixes.storage}'

@description('The blob of the azure-batch backend in job files.')
output blob string = 'abfs://batches@${account.name}.dfs.${environment().suffixes.storage}/${rootPrefix}'

@description('What openai.bicep and worker.bicep take.')
output storageAccountName string = account.name

@description('What openai.bicep and worker.bicep take.')
output identityName string = identity.name

@description('What worker.bicep takes.')
output vaultName string = vault.name

@description('What openai.bicep and worker.bicep take; empty where Azure\'s own network is to do.')
output subnetId string = workerSubnetId
