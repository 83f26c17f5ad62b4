"""Media types: one constant and one row of meaning each. Unknown ones are kept and served unchanged.

Source: spec ollama-api 3.3; OCI image-spec 1.1, media-types.md.
"""

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCTET_STREAM = "application/octet-stream"

CONFIG = "application/vnd.docker.container.image.v1+json"

_OLLAMA = "application/vnd.ollama.image."
MODEL = _OLLAMA + "model"  # GGUF weights; one text model normally
ADAPTER = _OLLAMA + "adapter"  # LoRA as GGUF
PROJECTOR = _OLLAMA + "projector"  # mmproj GGUF
DRAFT = _OLLAMA + "draft"  # draft model for speculative decoding
TEMPLATE = _OLLAMA + "template"  # Go template text
PROMPT = _OLLAMA + "prompt"  # legacy, read as template
SYSTEM = _OLLAMA + "system"  # text
PARAMS = _OLLAMA + "params"  # JSON object, sorted keys
MESSAGES = _OLLAMA + "messages"  # JSON array
LICENSE = _OLLAMA + "license"  # text; any number
TENSOR = _OLLAMA + "tensor"  # one safetensors tensor, has a name
JSON = _OLLAMA + "json"  # config.json and the like, has a name

GGUF_LAYERS = frozenset({MODEL, ADAPTER, PROJECTOR, DRAFT})
INDEXES = frozenset({OCI_INDEX, DOCKER_MANIFEST_LIST})
MANIFESTS = frozenset({DOCKER_MANIFEST, OCI_MANIFEST}) | INDEXES
NON_DISTRIBUTABLE = (
    "application/vnd.oci.image.layer.nondistributable.v1.",
    "application/vnd.docker.image.rootfs.foreign.",
)
