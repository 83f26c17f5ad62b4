"""Media types: a constant and a row of meaning each. Unknown ones are kept and served unchanged.

Source: spec ollama-api 3.3; OCI image-spec 1.1, media-types.md.
"""

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCTET_STREAM = "application/octet-stream"

CONFIG = "application/vnd.docker.container.image.v1+json"

OLLAMA = "application/vnd.ollama.image."
MODEL = OLLAMA + "model"  # GGUF weights; one text model normally
ADAPTER = OLLAMA + "adapter"  # LoRA as GGUF
PROJECTOR = OLLAMA + "projector"  # mmproj GGUF
DRAFT = OLLAMA + "draft"  # draft model for speculative decoding
TEMPLATE = OLLAMA + "template"  # Go template text
PROMPT = OLLAMA + "prompt"  # legacy, read as template
SYSTEM = OLLAMA + "system"  # text
PARAMS = OLLAMA + "params"  # JSON object, sorted keys
MESSAGES = OLLAMA + "messages"  # JSON array
LICENSE = OLLAMA + "license"  # text; any number
TENSOR = OLLAMA + "tensor"  # one safetensors tensor, has a name
JSON = OLLAMA + "json"  # config.json and the like, has a name

GGUF_LAYERS = frozenset({MODEL, ADAPTER, PROJECTOR, DRAFT})
INDEXES = frozenset({OCI_INDEX, DOCKER_MANIFEST_LIST})
MANIFESTS = frozenset({DOCKER_MANIFEST, OCI_MANIFEST}) | INDEXES
NON_DISTRIBUTABLE = (
    "application/vnd.oci.image.layer.nondistributable.v1.",
    "application/vnd.docker.image.rootfs.foreign.",
)
