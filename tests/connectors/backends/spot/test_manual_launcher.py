from __future__ import annotations

import pytest

from lowtide.connectors.backends.spot.launching import Launcher
from lowtide.connectors.backends.spot.manual_launcher import ManualLauncher
from lowtide.errors import QuotaFull


def test_a_launcher_that_starts_nothing_fits_where_others_do() -> None:
    launcher: Launcher = ManualLauncher()
    with pytest.raises(QuotaFull, match="LOWTIDE_FLEET=s3://results/lowtide/spot/r1-abc "):
        launcher.ensure("r1-abc", "s3://results/lowtide/spot/r1-abc", 4)
    launcher.stop("r1-abc")
    launcher.release("r1-abc")
    assert (launcher.name, launcher.running("r1-abc")) == ("none", 0)
    [finding] = launcher.examine()
    assert finding.ok
    assert "somebody else" in finding.found
