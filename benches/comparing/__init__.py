"""The parts of `benches/compare`, a module a noun; Python alone, no packages."""
