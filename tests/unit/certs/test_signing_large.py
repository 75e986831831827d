"""Large revocation lists: what proxies are told of must not keep the authority from signing."""

from certificates import ALICE, NOW, csr
from msgspec.structs import replace

from pilothouse.certs.issuing import IssuingPolicy
from pilothouse.certs.self_signed import make_root
from pilothouse.certs.signing import SigningPool
from pilothouse.certs.signing_messages import MAX_FRAME_BYTES


async def test_a_list_larger_than_a_message() -> None:
    """C-R-8: a hundred thousand revoked certificates make some megabytes."""
    material = replace(make_root("cluster.local", NOW), crl_pem=b"x" * (MAX_FRAME_BYTES + 1))
    pool = SigningPool(material, IssuingPolicy(), clock=lambda: NOW)
    await pool.start()
    try:
        assert (await pool.sign(csr(), ALICE)).root == material.root
        await pool.load(material)
        assert (await pool.sign(csr(), ALICE)).root == material.root
    finally:
        await pool.close()
