"""Virtual machines and the systems on them (notebooks 50, 60).

For example:

    from rfe_helpers.machine import Machine, Node, VmSpec

    machine = Machine.ensure(lab, VmSpec("edge-1", disk=disk, forwards=((2222, 22),)))
    node = Node(lab, "edge-1", port=2222)
    print(node.status().booted.version)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
