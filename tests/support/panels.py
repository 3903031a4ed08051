"""The widgets of a panel, found as a user finds them: by their labels, texts and regions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ipywidgets as widgets

from rfe_helpers.workbook.ui import parts
from rfe_helpers.workbook.ui.parts import Panel


def all_widgets(panel: Panel) -> list[Any]:
    """Every widget of the panel, from top to bottom."""

    def below(widget: Any) -> Iterator[Any]:
        yield widget
        for child in getattr(widget, "children", ()):
            yield from below(child)

    return list(below(panel.box))


def field(panel: Panel, label: str) -> Any:
    """The one widget with this label or placeholder that is not a button."""
    (widget,) = [
        widget
        for widget in all_widgets(panel)
        if not isinstance(widget, widgets.Button)
        and label in (getattr(widget, "description", ""), getattr(widget, "placeholder", ""))
    ]
    return widget


def only(panel: Panel, kind: type[Any]) -> Any:
    """The one widget of a kind, such as the picture of a panel."""
    (widget,) = [widget for widget in all_widgets(panel) if isinstance(widget, kind)]
    return widget


def text(panel: Panel, region: str) -> str:
    """The HTML of a region, by the name that `parts.region` was given."""
    (widget,) = [w for w in all_widgets(panel) if f"rfe-{region}" in getattr(w, "_dom_classes", ())]
    return str(widget.value)


def message(panel: Panel) -> str:
    """The HTML of the message below the widgets."""
    return text(panel, "message")


def buttons(panel: Panel) -> list[Any]:
    return [widget for widget in all_widgets(panel) if isinstance(widget, widgets.Button)]


def press(panel: Panel, label: str) -> None:
    """Click a button, as the front end does, and wait for the work that it starts."""
    (button,) = [button for button in buttons(panel) if button.description == label]
    button.click()
    panel.wait(60)


def close(panel: Panel) -> None:
    """Close the widgets, which ends the panel's refreshing."""
    parts.close(panel.box)
