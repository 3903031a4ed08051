# The settings of `rfe lab open` for JupyterLab, which reads them through JUPYTER_CONFIG_PATH.
import os
import secrets
import warnings

c = get_config()  # noqa: F821

VIEW = "application/vnd.jupyter.widget-view+json"


def is_transient(output):
    return "rfe-transient" in output.get("metadata", {})


def keep_the_twin(model, **_):
    """Save only the static twin of a panel: its widget lives as long as the kernel, and a saved
    reference to it shows "model not found" afterwards. What workbook/kernel.py does to the window
    is not saved."""
    content = model.get("content")
    if model.get("type") != "notebook" or not isinstance(content, dict):
        return
    for cell in content.get("cells", ()):
        if "outputs" in cell:
            cell["outputs"] = [each for each in cell["outputs"] if not is_transient(each)]
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "text/html" in data:
                data.pop(VIEW, None)


# The server applies its configuration twice, and warns of a hook that replaces itself.
warnings.filterwarnings("ignore", "Overriding existing pre_save_hook")
c.ContentsManager.pre_save_hook = keep_the_twin
# Without a terminal of its own the server would start login shells, which reset PATH (Debian's
# /etc/profile), and `rfe` would not be found.
c.ServerApp.terminado_settings = {"shell_command": [os.environ.get("SHELL") or "bash"]}
# One that the server makes itself would be written to its log.
c.IdentityProvider.token = secrets.token_hex(24)
