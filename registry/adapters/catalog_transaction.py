"""The catalog's reader and transaction in SQL, put together from their parts. Any dialect's."""

from registry.adapters.catalog_blobs import BlobReader
from registry.adapters.catalog_contents import ContentReader, ContentWriter
from registry.adapters.catalog_fleet import FleetChanges, FleetQueries
from registry.adapters.catalog_jobs import JobChanges, JobQueries
from registry.adapters.catalog_manifests import ManifestReader, ManifestWriter
from registry.adapters.catalog_quotas import QuotaQueries
from registry.adapters.catalog_rights import RightsChanges, RightsQueries
from registry.adapters.catalog_storage import StorageQueries
from registry.adapters.catalog_transfers import TransferReader, TransferWriter
from registry.adapters.catalog_upkeep import UpkeepChanges, UpkeepQueries


class SqlReader(
    ManifestReader,
    BlobReader,
    ContentReader,
    TransferReader,
    RightsQueries,
    FleetQueries,
    JobQueries,
    UpkeepQueries,
    StorageQueries,
    QuotaQueries,
):
    """`Reader` on a session."""


class SqlTransaction(
    ManifestWriter,
    ContentWriter,
    TransferWriter,
    RightsChanges,
    FleetChanges,
    JobChanges,
    UpkeepChanges,
    StorageQueries,
):
    """`Transaction` on a session."""
