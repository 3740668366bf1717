//! The search of a range of addresses for machines: one at a time.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::input::{Body, Parameters};
use super::page::PageQuery;
use super::routes::{Answer, Created, Routes, about, blocking};
use super::{Api, Caller, Page, Role};
use crate::search::{FoundHost, NewSearch, SearchView};
use crate::{Error, ErrorKind};

pub(super) fn routes() -> Routes<Arc<Api>> {
    let start = "Searches a range of addresses for SSH and Windows ports, by TCP connects at a bounded rate";
    Routes::new()
        .get(
            "/search",
            about(Role::Viewer, "get_search", "The last search, and how far it is; null before the first"),
            last,
        )
        .post("/search", about(Role::Operator, "start_search", start), begin)
        .delete(
            "/search",
            about(Role::Operator, "cancel_search", "Ends the search that runs; what it found stays"),
            cancel,
        )
        .get("/search/hosts", about(Role::Viewer, "list_found_hosts", "Addresses with open ports that it found"), hosts)
}

async fn last(State(api): State<Arc<Api>>) -> Answer<Json<Option<SearchView>>> {
    Ok(Json(api.searches.last()))
}

async fn begin(State(api): State<Arc<Api>>, caller: Caller, Body(new): Body<NewSearch>) -> Answer<Created<SearchView>> {
    // The runtime of this thread is that of the API: the search runs on it.
    Ok(Created(blocking(move || api.searches.start(&new, &caller.actor)).await?.0))
}

async fn cancel(State(api): State<Arc<Api>>, caller: Caller) -> Answer<Json<SearchView>> {
    blocking(move || api.searches.cancel(&caller.actor)).await
}

async fn hosts(State(api): State<Arc<Api>>, Parameters(query): Parameters<PageQuery>) -> Answer<Json<Page<FoundHost>>> {
    let wrong = |_| Error::new(ErrorKind::Invalid, "after: expected an IP address");
    let after: Option<IpAddr> = query.after.as_deref().map(str::parse).transpose().map_err(wrong)?;
    let limit = query.limit();
    let found = api.searches.found(after, limit + 1, query.search.as_deref());
    Ok(Json(Page::of(found, limit, |last| last.address.to_string())))
}
