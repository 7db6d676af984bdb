"""`python -m lowtide.emulators`."""

from __future__ import annotations

from lowtide.emulators.serve import main

raise SystemExit(main())
