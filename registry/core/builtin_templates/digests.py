"""Chat templates that are known by the SHA-256 of their bytes alone, by the name of our template.

Unlike those of `chat_templates` they are recognised only as their authors published them, to the
byte: there is no distance from a digest.
"""

DIGESTS = {
    # DBRX Instruct
    "faf1f8b675beeabd4ddbb89b93bb03f94f097b3bb1ff5dfa8e99e70674a9cdbb": "chatml",
    # ChatML with a beginning of text, before a first turn of user or system
    "3ce2fe9753f9a77a601f55dfcab7cd46fbc91324aae0f78ca38d194a4eaef8d5": "chatml",
    # turns of user and assistant as Zephyr writes them, without a system text
    "bf61473d7119388a9093c4e55e4d83651e68e1cfa985a82093a0d1a2ac114514": "zephyr",
    # ChatQA, without and with its own system text
    "8aeba567270fa9a8d5372caf4b04affea947c4421d96adc01e3ff94021b0ae8e": "chatqa",
    "cd3636885332999fc1931dc2a0070f767bc5b2af643ab05c6dc48806add23b3f": "chatqa",
}
