"""Virtual machines and the systems on them (notebooks 50, 60).

For example:

>>> from rfe_helpers.machine import Machine, Node, VmSpec
>>> spec = VmSpec("edge-1", disk=lab.path("machines", "edge-1", "disk.qcow2"))
>>> machine = Machine.ensure(lab, spec)  # starts it unless it runs
>>> node = Node(lab, "edge-1", port=lab.step("install")["ssh_port"])
>>> node.status().booted.version
'13.2...'
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
