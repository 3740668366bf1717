//! Long lists in pages.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Items of a page where nothing else is asked for.
const LIMIT: u32 = 100;
/// Items that a page has at most.
pub const LIMIT_MAX: u32 = 200;

/// A part of a list.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Page<T> {
    /// The items, in the order of the list.
    pub items: Vec<T>,
    /// Where there are more: `after` of the next page.
    pub next: Option<String>,
}

/// Which part of a list.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    /// Items of the page, at most 200; 100 where it is not given.
    #[schemars(range(min = 1, max = 200))]
    limit: Option<u32>,
    /// `next` of the page before; the first page without it.
    #[schemars(length(max = 100))]
    pub(super) after: Option<String>,
    /// Only what has this text in one of its names, numbers or addresses.
    #[schemars(length(max = 200))]
    pub(super) search: Option<String>,
}

impl PageQuery {
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX) as usize
    }
}

impl<T> Page<T> {
    /// Of a list that was read one item further than the page is long.
    pub(super) fn of(mut items: Vec<T>, limit: usize, cursor: impl FnOnce(&T) -> String) -> Self {
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| has_more).map(cursor);
        Self { items, next }
    }

    /// The same page of other items.
    pub(super) fn map<U>(self, item: impl FnMut(T) -> crate::Result<U>) -> crate::Result<Page<U>> {
        let items = self.items.into_iter().map(item).collect::<crate::Result<_>>()?;
        Ok(Page { items, next: self.next })
    }
}
