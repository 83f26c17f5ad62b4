"""What the store's errors are to us."""

from botocore.exceptions import ClientError

from registry.adapters.s3_client import translated
from registry.core.errors import Unavailable


def test_a_machine_whose_clock_is_off_leaves_it_to_others() -> None:
    answer = {"Error": {"Code": "RequestTimeTooSkewed"}}
    found = translated(ClientError(answer, "PutObject"))
    assert isinstance(found, Unavailable)
    assert str(found) == "the object store refuses the clock of this machine"
