//! File descriptors: each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::settings::Limits;

/// Raises the soft descriptor limit to the hard one, and gives how many connections then fit.
#[must_use]
pub fn connections_that_fit(limits: &Limits) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let available = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let Some(descriptors) = available else {
        return limits.connections;
    };
    let fitting = limits.connections_within(descriptors);
    if fitting < limits.connections {
        tracing::warn!(
            configured = limits.connections,
            lowered_to = fitting,
            descriptors,
            "limits.connections is lowered to what the descriptor limit allows"
        );
    }
    fitting
}
