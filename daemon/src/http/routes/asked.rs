//! What a URL asks for: the view it describes, and the filter of that.

use crate::http::problem::Problem;
use crate::hub::Filter;
use crate::web::view::View;

/// Reads the URL.
pub(super) fn view(query: Option<String>) -> Result<View, Problem> {
    View::parse(query.as_deref().unwrap_or_default()).map_err(|why| Problem::new(400, why))
}

/// Processes without their sites.
pub(super) fn no_leaks() -> Filter {
    Filter {
        limit: Some(0),
        ..Filter::default()
    }
}

/// The processes a view names, without their sites.
pub(super) fn of_process(view: &View) -> Filter {
    Filter {
        process: view.process.clone(),
        ..no_leaks()
    }
}

/// One process, without its sites.
pub(super) fn one_process(id: &str) -> Filter {
    Filter {
        process: Some(id.to_owned()),
        ..no_leaks()
    }
}
