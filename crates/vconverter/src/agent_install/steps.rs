//! What is done, one line each: for people, or as JSON.

use serde_json::{Value, json};

use crate::failure::Result;
use crate::table::plain;

/// Tells steps.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    pub(super) json: bool,
}

impl Steps {
    pub(super) fn tell(self, step: &str, detail: &str) -> Result<()> {
        match self.json {
            // What the agent does itself stands below its installation.
            true if step.is_empty() => crate::print_json_line(&json!({ "step": "install", "detail": detail })),
            true => crate::print_json_line(&json!({ "step": step, "detail": detail })),
            false => crate::print(&format!("{step:<10}{}\n", plain(detail))),
        }
    }

    /// The result, for programs with what else is known.
    pub(super) fn done(self, detail: &str, mut more: Value) -> Result<()> {
        if self.json {
            more["step"] = json!("done");
            more["detail"] = json!(detail);
            return crate::print_json_line(&more);
        }
        self.tell("done", detail)
    }
}
