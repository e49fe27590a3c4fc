//! Prints what a client hands to its user, one JSON object a line. Nothing about streams belongs here.

use std::io::Write;

/// Write one event, as the client gave it, to standard output at once.
pub fn print_surfaced(event: &str, id: Option<&str>, data: &str) {
    let line = serde_json::json!({ "event": event, "id": id, "data": data });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").expect("standard output");
    out.flush().expect("standard output");
}
