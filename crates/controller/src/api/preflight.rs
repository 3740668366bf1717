//! What is known of conversions before anything is touched.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use conversion::Preflight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::{At, Body};
use super::machines::{OneMachine, machine_id};
use super::problem::invalid;
use super::routes::{Answer, Routes, about, blocking};
use super::tasks::wish;
use super::{Api, CONVERSIONS_MAX, NewBatches, Role};
use crate::Result;
use crate::sessions::TestedLink;
use crate::tasks::Forecast;

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
    /// How long the copy takes, where the machine's link was tested since it connected.
    pub forecast: Option<Forecast>,
}

pub(super) fn routes() -> Routes<Arc<Api>> {
    let summary =
        "Looks at conversions without asking for them: space, encryption, names, what cannot be known of a guest";
    let test = "Tests how fast a machine's content comes: some seconds of its disks are read, sent and thrown away";
    Routes::new().post("/preflight", about(Role::Operator, "preflight", summary), preflight).post(
        "/machines/{machine}/link-test",
        about(Role::Operator, "test_link", test),
        test_link,
    )
}

async fn test_link(State(api): State<Arc<Api>>, At(at): At<OneMachine>) -> Answer<Json<TestedLink>> {
    blocking(move || api.tasks.test_link(&machine_id(&api, &at.machine)?)).await
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
            let (preflight, forecast) = api.tasks.preflight(&wish)?;
            Ok(PreflightView { machine: wish.machine, name: wish.request.name, preflight, forecast })
        };
        conversions.into_iter().map(look).collect::<Result<_>>()
    })
    .await
}
