# How `rfe lab open` starts JupyterLab; read through JUPYTER_CONFIG_PATH.
c = get_config()  # noqa: F821

VIEW = "application/vnd.jupyter.widget-view+json"


def keep_the_twin(model, **_):
    """Save the static twin of a panel only: its widget lives as long as the kernel, and a saved
    reference to it would say "model not found" for ever after."""
    content = model.get("content")
    if model.get("type") != "notebook" or not isinstance(content, dict):
        return
    for cell in content.get("cells", ()):
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "text/html" in data:
                data.pop(VIEW, None)


c.ContentsManager.pre_save_hook = keep_the_twin
