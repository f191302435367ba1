//! Faults: the link proxy and, later, the simulation.
