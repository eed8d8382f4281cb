# All images. Read together with bases.json, which holds what is pinned outside of this repository:
#   docker buildx bake -f images/docker-bake.hcl -f images/bases.json [TARGET...] --push
# from the repository's root. docs/images.md says more.

variable "REGISTRY" {
  description = "Where the images go: REGION-docker.pkg.dev/PROJECT/REPOSITORY"
  default     = "localhost/lorafleet"
  validation {
    condition     = length(regexall("^[a-z0-9._:-]+(/[a-z0-9._-]+)+$", REGISTRY)) == 1
    error_message = "REGISTRY is a registry and a repository in lower case, such as europe-west4-docker.pkg.dev/project/repository."
  }
}

variable "VERSION" {
  description = "The images' tag. What runs is named by digest; the tag is for people."
  default     = "0.1.0-dev"
  validation {
    condition     = VERSION != "latest" && length(regexall("^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$", VERSION)) == 1
    error_message = "VERSION is letters, digits, '.', '_' and '-', and not 'latest': a tag must say what it is."
  }
}

variable "REVISION" {
  description = "The commit that is built: git rev-parse HEAD"
  default     = "unknown"
}

variable "SOURCE" {
  description = "The repository's address, for the label"
  default     = "unknown"
}

variable "SOURCE_DATE_EPOCH" {
  description = "Seconds since 1970 of that commit (git log -1 --format=%ct): the time in labels and of files, not the build's"
  default     = "0"
}

variable "CACHE" {
  description = "A reference to keep build layers in, in a repository whose tags can be moved, so not in REGISTRY; empty: none"
  default     = ""
}

group "default" {
  targets = ["serving", "runpod", "router"]
}

# Not in the default group: the digest of its base is not known yet, and it was never built (docs/images.md).
group "all" {
  targets = ["serving", "runpod", "router", "vertex"]
}

target "_common" {
  context   = "."
  platforms = ["linux/amd64"]
  args = {
    PYTHON_BASE       = "${bases.python.image}@${bases.python.digest}"
    DEBIAN_SNAPSHOT   = debian_snapshot
    SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH
  }
  attest = [
    "type=provenance,mode=max",
    "type=sbom,generator=${bases.sbom.image}@${bases.sbom.digest}",
  ]
  # `--push` pushes it. Files get the time of the commit, so that the same commit gives the same layers.
  output = ["type=image,rewrite-timestamp=true"]
}

function "labels" {
  params = [title, licences]
  result = {
    "org.opencontainers.image.title"    = title
    "org.opencontainers.image.source"   = SOURCE
    "org.opencontainers.image.revision" = REVISION
    "org.opencontainers.image.version"  = VERSION
    "org.opencontainers.image.licenses" = licences
    "org.opencontainers.image.created"  = timeadd("1970-01-01T00:00:00Z", "${SOURCE_DATE_EPOCH}s")
  }
}

function "tags" {
  params = [name]
  result = ["${REGISTRY}/${name}:${VERSION}"]
}

function "cache_from" {
  params = [name]
  result = CACHE == "" ? [] : ["type=registry,ref=${CACHE}:${name}"]
}

# A cache that can't be written fails no build.
function "cache_to" {
  params = [name]
  result = CACHE == "" ? [] : ["type=registry,ref=${CACHE}:${name},mode=max,image-manifest=true,oci-mediatypes=true,ignore-error=true"]
}

target "serving" {
  inherits   = ["_common"]
  dockerfile = "images/serving/Dockerfile"
  tags       = tags("serving")
  labels     = merge(labels("lorafleet serving", "Apache-2.0 AND LicenseRef-NVIDIA-CUDA"), { "org.opencontainers.image.base.name" = bases.python.image, "org.opencontainers.image.base.digest" = bases.python.digest })
  cache-from = cache_from("serving")
  cache-to   = cache_to("serving")
}

target "runpod" {
  inherits   = ["_common"]
  dockerfile = "images/runpod/Dockerfile"
  # The serving image as it is built here: its layers are shared, and there is one vLLM.
  contexts   = { serving = "target:serving" }
  tags       = tags("runpod")
  labels     = labels("lorafleet RunPod worker", "Apache-2.0 AND LicenseRef-NVIDIA-CUDA")
  cache-from = cache_from("runpod")
  cache-to   = cache_to("runpod")
}

target "router" {
  inherits   = ["_common"]
  dockerfile = "images/router/Dockerfile"
  tags       = tags("router")
  labels     = merge(labels("lorafleet router", "GPL-2.0-or-later AND PSF-2.0"), { "org.opencontainers.image.base.name" = bases.python.image, "org.opencontainers.image.base.digest" = bases.python.digest })
  cache-from = cache_from("router")
  cache-to   = cache_to("router")
}

target "vertex" {
  inherits   = ["_common"]
  dockerfile = "images/vertex/Dockerfile"
  args       = { VERTEX_BASE = bases.vertex.digest == null ? "" : "${bases.vertex.image}@${bases.vertex.digest}" }
  tags       = tags("vertex")
  labels     = labels("lorafleet Vertex AI server", "Apache-2.0 AND LicenseRef-NVIDIA-CUDA")
  cache-from = cache_from("vertex")
  cache-to   = cache_to("vertex")
}
