//! `/openapi.json`: what can be asked, as a machine reads it. A test holds it to the routes.

use serde_json::{Map, Value, json};

use crate::web::view::CLASSES;
use pageshim_wire::check::CLASS_NAMES;

/// The document.
pub(crate) fn text() -> String {
    document().to_string() + "\n"
}

fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "pageshim",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Who holds the heap and its pages. Numbers are bytes unless the name says otherwise."
        },
        "paths": paths(),
        "components": { "schemas": { "Problem": problem() } }
    })
}

fn paths() -> Value {
    let mut paths = Map::new();
    let mut add = |path: &str, summary: &str, kind: &str, parameters: Value| {
        let answer = json!({ "description": summary, "content": { kind: {} } });
        let other = json!({ "description": "A problem", "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } } });
        paths.insert(path.to_owned(), json!({ "get": {
            "summary": summary, "parameters": parameters, "responses": { "200": answer, "default": other }
        } }));
    };
    add(
        "/",
        "Overview of all processes",
        "text/html",
        json!([refresh()]),
    );
    add(
        "/leaks",
        "Sites with live blocks; the Accept header or `format` chooses the format",
        "text/html",
        leaks(true),
    );
    add(
        "/leaks.json",
        "Sites with live blocks, and their processes",
        "application/json",
        leaks(false),
    );
    add(
        "/leaks.csv",
        "Sites with live blocks, one row each",
        "text/csv",
        leaks(false),
    );
    add(
        "/leaks.txt",
        "Sites with live blocks, for terminals",
        "text/plain",
        leaks(false),
    );
    add(
        "/api/v1/leaks",
        "The same as /leaks.json",
        "application/json",
        leaks(false),
    );
    add(
        "/waste",
        "Who holds the resident pages: the bill of each process",
        "text/html",
        json!([process(), refresh()]),
    );
    add(
        "/waste.json",
        "The same, with sites and pinners",
        "application/json",
        json!([process()]),
    );
    let one = |page: bool| {
        let text = json!({ "type": "string" });
        let number = json!({ "type": "integer", "minimum": 0 });
        let mut all = vec![
            process(),
            parameter("site", &text, "Site id: other cells do not match"),
            parameter(
                "slot",
                &number,
                "Slot bytes of a class, 0 for singletons: other cells do not match",
            ),
        ];
        all.extend(page.then(refresh));
        Value::Array(all)
    };
    add(
        "/pages",
        "Map of a running process's heap, a cell for each slice or more",
        "text/html",
        one(true),
    );
    add("/pages.json", "The same", "application/json", one(false));
    add(
        "/sizes",
        "Size classes: slots, rounding, free slots and tails of each",
        "text/html",
        json!([process(), refresh()]),
    );
    add(
        "/sizes.json",
        "The same",
        "application/json",
        json!([process()]),
    );
    add(
        "/syscalls",
        "System calls of the heap by the site that caused them, and pages first touched",
        "text/html",
        json!([process(), refresh()]),
    );
    add(
        "/syscalls.json",
        "The same, with stacks",
        "application/json",
        json!([process()]),
    );
    add(
        "/whatif",
        "What the same requests cost on other layers, and advice",
        "text/html",
        json!([process(), refresh()]),
    );
    add(
        "/whatif.json",
        "The same",
        "application/json",
        json!([process()]),
    );
    let id =
        json!([{ "name": "id", "in": "path", "required": true, "schema": { "type": "string" } }]);
    add(
        "/api/v1/processes/{id}/bill",
        "The bill of one process, by id, pid or name",
        "application/json",
        id,
    );
    let id =
        json!([{ "name": "id", "in": "path", "required": true, "schema": { "type": "string" } }]);
    add(
        "/api/v1/processes/{id}/checks",
        "The last checks of one process, newest first, with their lost sites, and the last two compared",
        "application/json",
        id,
    );
    add(
        "/why",
        "Chains of pointers that were asked for",
        "text/html",
        json!([process(), refresh()]),
    );
    add(
        "/why.json",
        "The same",
        "application/json",
        json!([process()]),
    );
    add(
        "/processes.json",
        "All processes",
        "application/json",
        json!([process()]),
    );
    add(
        "/api/v1/processes",
        "The same as /processes.json",
        "application/json",
        json!([process()]),
    );
    add("/metrics", "Prometheus metrics", "text/plain", json!([]));
    add("/healthz", "The daemon runs", "text/plain", json!([]));
    add("/livez", "The same as /healthz", "text/plain", json!([]));
    add(
        "/readyz",
        "The daemon takes new processes",
        "text/plain",
        json!([]),
    );
    add(
        "/openapi.json",
        "This document",
        "application/json",
        json!([]),
    );
    let name =
        json!([{ "name": "name", "in": "path", "required": true, "schema": { "type": "string" } }]);
    add(
        "/assets/{name}",
        "Style, script and icon of the pages",
        "*/*",
        name,
    );
    let roots = parameter(
        "roots",
        &json!({ "type": "string", "enum": ["all", "strict"] }),
        "strict: other writable mappings than modules' data, stacks and threads' storage are no roots",
    );
    let id = json!([{ "name": "id", "in": "path", "required": true, "schema": { "type": "string" } }, roots]);
    let summary = "Checks a running process for lost blocks now, and answers what is known of it; 409 says why it could not be";
    let answer = json!({ "description": summary, "content": { "application/json": {} } });
    let other = json!({ "description": "A problem", "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } } });
    paths.insert(
        "/api/v1/processes/{id}/check".to_owned(),
        json!({ "post": {
        "summary": summary, "parameters": id, "responses": { "200": answer, "default": other }
    } }),
    );
    paths.insert("/api/v1/processes/{id}/why".to_owned(), why());
    Value::Object(paths)
}

/// Asked with POST, read again with GET.
fn why() -> Value {
    let id =
        json!({ "name": "id", "in": "path", "required": true, "schema": { "type": "string" } });
    let text = json!({ "type": "string" });
    let classes = json!({ "type": "string", "enum": CLASS_NAMES });
    let asked = json!([
        id,
        parameter(
            "address",
            &text,
            "Address in a block, as 0x7f31c2a04040; this or `site`"
        ),
        parameter("site", &text, "Id of a site: any live block of it"),
        parameter(
            "class",
            &classes,
            "Which blocks of the site; else those held best"
        ),
    ]);
    let other = json!({ "description": "A problem", "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } } });
    let way = |summary: &str, parameters: &Value| {
        let answer = json!({ "description": summary, "content": { "application/json": {} } });
        json!({ "summary": summary, "parameters": parameters, "responses": { "200": answer, "default": other } })
    };
    json!({
        "post": way("Checks a running process and answers the shortest chain of pointers from a root to a block; 409 says why it could not be checked", &asked),
        "get": way("The last chains that were asked for, newest first", &json!([id])),
    })
}

fn parameter(name: &str, schema: &Value, description: &str) -> Value {
    json!({ "name": name, "in": "query", "schema": schema, "description": description })
}

fn process() -> Value {
    parameter("process", &json!({ "type": "string" }), "Id, pid or name")
}

fn refresh() -> Value {
    parameter(
        "refresh",
        &json!({ "type": "integer" }),
        "Seconds between refreshes of the page",
    )
}

fn leaks(page: bool) -> Value {
    let text = json!({ "type": "string" });
    let mut all = vec![
        process(),
        parameter(
            "class",
            &json!({ "type": "string", "enum": CLASSES }),
            "Class of the sites",
        ),
        parameter(
            "min_bytes",
            &text,
            "Fewest live bytes of a site: 4096, 4k, 1MiB",
        ),
        parameter(
            "q",
            &text,
            "Text in a function, file or module of any frame",
        ),
        parameter(
            "limit",
            &json!({ "type": "integer", "minimum": 0 }),
            "Most rows; 0 is all",
        ),
        parameter(
            "sort",
            &json!({ "type": "string", "enum": ["bytes", "blocks", "age", "total", "function"] }),
            "Order of rows",
        ),
    ];
    if page {
        all.push(parameter(
            "format",
            &json!({ "type": "string", "enum": ["html", "json", "csv", "txt"] }),
            "Wins over the Accept header",
        ));
        all.push(refresh());
    }
    Value::Array(all)
}

fn problem() -> Value {
    json!({ "type": "object", "required": ["type", "title", "status", "detail"], "properties": {
        "type": { "type": "string" }, "title": { "type": "string" },
        "status": { "type": "integer" }, "detail": { "type": "string" }
    } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::routes::PATHS;

    // Goal: the document and the routes name the same paths. Method: compare sets.
    #[test]
    fn every_route_is_described() {
        let document = document();
        let described: Vec<&String> = document["paths"]
            .as_object()
            .expect("object")
            .keys()
            .collect();
        assert_eq!(described.len(), PATHS.len());
        assert!(
            PATHS
                .iter()
                .all(|path| document["paths"].get(path).is_some()),
            "{described:?}"
        );
    }
}
