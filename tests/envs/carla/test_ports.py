import socket

import pytest

from envs.carla.ports import PortBlock, free_port, is_free, is_listening


def test_a_block_is_free_and_reserved() -> None:
    with PortBlock() as one, PortBlock() as other:
        ports = range(one.address.port, one.address.port + 4)
        assert all(is_free(port) for port in ports)
        assert one.address.traffic_port == one.address.port + 3
        assert other.address.port not in range(one.address.port - 9, one.address.port + 10)
        with pytest.raises(OSError, match=f"port {one.address.port} is taken"):
            PortBlock(one.address.port)


def test_a_closed_block_can_be_had_again() -> None:
    block = PortBlock()
    block.close()
    with PortBlock(block.address.port) as again:
        assert again.address == block.address


@pytest.mark.parametrize("offset", [0, 1, 2, 3])
def test_a_taken_port_is_named(offset: int) -> None:
    with PortBlock() as block:
        port = block.address.port
    with socket.socket() as other:
        other.bind(("127.0.0.1", port + offset))
        other.listen()
        assert not is_free(port + offset)
        with pytest.raises(OSError, match=f"port {port} is taken"):
            PortBlock(port)


def test_a_port_out_of_range_is_not_free() -> None:
    assert not is_free(70_000)


def test_listening() -> None:
    port = free_port()
    assert not is_listening("127.0.0.1", port)
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        server.listen()
        assert is_listening("127.0.0.1", port)
