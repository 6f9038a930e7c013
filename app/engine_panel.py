"""Which network runs how: shown, and changed while it runs."""

from dataclasses import replace
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QComboBox, QFileDialog, QFormLayout, QLabel, QVBoxLayout, QWidget

from app.choice import Choice
from app.engine import Engine, EngineChoice
from app.switch import Switch

SIZES: tuple[tuple[str, tuple[int, int] | None], ...] = (
    ("Auto", None),
    ("512 x 256", (256, 512)),
    ("768 x 384", (384, 768)),
    ("1024 x 512", (512, 1024)),
    ("1536 x 768", (768, 1536)),
    ("2048 x 1024", (1024, 2048)),
)
"""Sizes at which the network sees frames, as (height, width)."""
BACKENDS = (
    ("Auto", "auto"),
    ("PyTorch", "eager"),
    ("torch.compile", "compile"),
    ("CUDA graph", "cudagraph"),
    ("TensorRT", "tensorrt"),
)
PRECISIONS = (("Auto", "auto"), ("32 bit", "fp32"), ("bfloat16", "bf16"), ("16 bit", "fp16"))
_BROWSE = "\0browse"


class EnginePanel(QWidget):
    """Choices of model, size, backend and precision, and whether labels are steadied."""

    chosen = Signal(object)  # EngineChoice
    smooth_toggled = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("section")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self._choice = EngineChoice()
        self._focused: QWidget | None = None  # while a network is being loaded
        heading = QLabel("Network")
        heading.setProperty("heading", True)
        self.status = QLabel("-")
        self.status.setProperty("quiet", True)
        self.status.setWordWrap(True)
        self.status.setAccessibleDescription("Network in use")
        self.model_box, self.size_box = Choice("Model"), Choice("Input")
        self.backend_box, self.precision_box = Choice("Backend"), Choice("Precision")
        for box in (self.model_box, self.size_box, self.backend_box, self.precision_box):
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            box.setMinimumContentsLength(6)
        for words, size in SIZES:
            self.size_box.addItem(words, size)
        for words, value in BACKENDS:
            self.backend_box.addItem(words, value)
        for words, value in PRECISIONS:
            self.precision_box.addItem(words, value)

        self.smooth = Switch("Stable masks")
        self.smooth.setToolTip("Average the classes over time, along the motion of the picture: less flicker (M)")
        self.smooth.toggled.connect(self.smooth_toggled)

        form = QFormLayout()
        for control in (self.model_box, self.size_box, self.backend_box, self.precision_box, self.smooth):
            label = QLabel(control.accessibleName())
            label.setProperty("quiet", True)
            label.setBuddy(control)  # screen readers on Linux take a list's name from there
            form.addRow(label, control)
        layout = QVBoxLayout(self)
        layout.addWidget(heading)
        layout.addWidget(self.status)
        layout.addLayout(form)

        self.model_box.activated.connect(lambda _: self._model_chosen())
        self.size_box.activated.connect(lambda _: self._choose(replace(self._choice, size=self.size_box.currentData())))
        self.backend_box.activated.connect(
            lambda _: self._choose(replace(self._choice, backend=self.backend_box.currentData()))
        )
        self.precision_box.activated.connect(
            lambda _: self._choose(replace(self._choice, precision=self.precision_box.currentData()))
        )

    def show_choice(self, choice: EngineChoice) -> None:
        """Show what is asked for."""
        self._choice = choice
        self._list_models()
        if self.size_box.findData(choice.size) < 0 and choice.size is not None:
            height, width = choice.size
            self.size_box.addItem(f"{width} x {height}", choice.size)
        for box, value in (
            (self.model_box, choice.weights or "s"),
            (self.size_box, choice.size),
            (self.backend_box, choice.backend),
            (self.precision_box, choice.precision),
        ):
            box.setCurrentIndex(box.findData(value))

    def show_busy(self, busy: bool) -> None:
        """Show that a network is being loaded; the old one goes on."""
        if busy and self.isEnabled():
            self._focused = self.focusWidget() if self.isAncestorOf(self.window().focusWidget() or self) else None
        self.setEnabled(not busy)
        if busy:
            self.status.setText("Loading …")
        elif self._focused is not None and self.window().focusWidget() is None:
            self._focused.setFocus()  # what is disabled loses it

    def show_engine(self, engine: Engine | None, frame_size: tuple[int, int] | None) -> None:
        """Show what is in use."""
        if engine is None:
            self.status.setText("-")
            return
        segmenter = engine.segmenter
        name = segmenter.architecture.removeprefix("bsdnet_").upper()
        parts = [f"BSDNet-{name}", str(segmenter.device), segmenter.precision, segmenter.backend]
        if frame_size is not None:
            height, width = segmenter.size_for(frame_size)
            parts.insert(1, f"{width} x {height}")
        self.status.setText("  ·  ".join(parts))

    def _list_models(self) -> None:
        self.model_box.clear()
        for words, name in _shipped():
            self.model_box.addItem(words, name)
        if self._choice.weights and self.model_box.findData(self._choice.weights) < 0:
            self.model_box.addItem(Path(self._choice.weights).name, self._choice.weights)
        self.model_box.addItem("Other weights …", _BROWSE)

    def _model_chosen(self) -> None:
        weights = self.model_box.currentData()
        if weights == _BROWSE:
            weights, _ = QFileDialog.getOpenFileName(self, "Weights", "", "Weights (*.safetensors)")
            if not weights:
                self.show_choice(self._choice)
                return
        self._choose(replace(self._choice, weights=weights))

    def _choose(self, choice: EngineChoice) -> None:
        self.show_choice(choice)
        self.chosen.emit(choice)


def _shipped() -> list[tuple[str, str]]:
    """The weights that come with the package."""
    import bsdnet.weights

    names = sorted(path.name for folder in bsdnet.weights.__path__ for path in Path(folder).glob("*.safetensors"))
    letters = [name.split("-")[1] for name in names]
    return [(f"BSDNet-{letter.upper()}", letter) for letter in sorted(letters, reverse=True)]
