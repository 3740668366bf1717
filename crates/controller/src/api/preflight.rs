//! What is known of conversions before anything is touched.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use conversion::Preflight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::Body;
use super::problem::invalid;
use super::routes::{Answer, Routes, about, blocking};
use super::tasks::wish;
use super::{Api, CONVERSIONS_MAX, NewBatches, Role};
use crate::Result;

/// What is known of one conversion.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PreflightView {
    /// Id of the machine.
    pub machine: String,
    /// Name of the VM.
    pub name: String,
    /// What was found.
    #[serde(flatten)]
    pub preflight: Preflight,
}

pub(super) fn routes() -> Routes<Arc<Api>> {
    let summary =
        "Looks at conversions without asking for them: space, encryption, names, what cannot be known of a guest";
    Routes::new().post("/preflight", about(Role::Operator, "preflight", summary), preflight)
}

async fn preflight(State(api): State<Arc<Api>>, Body(new): Body<NewBatches>) -> Answer<Json<Vec<PreflightView>>> {
    let conversions = new.conversions;
    if conversions.len() > CONVERSIONS_MAX {
        let count = conversions.len();
        return Err(invalid(&format!("conversions: expected at most {CONVERSIONS_MAX}, found {count}")));
    }
    blocking(move || {
        let look = |new| {
            let wish = wish(&api, new)?;
            let preflight = api.tasks.preflight(&wish)?;
            Ok(PreflightView { machine: wish.machine, name: wish.request.name, preflight })
        };
        conversions.into_iter().map(look).collect::<Result<_>>()
    })
    .await
}
