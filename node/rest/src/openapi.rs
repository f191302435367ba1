//! The OpenAPI document of everything on this port. It is written by hand; a test here holds it against the routes of the
//! sources, and tests/tests/rest_api.rs against a server.

use axum::http::header;
use axum::response::IntoResponse;

/// OpenAPI 3.0 as JSON.
pub(crate) const DOCUMENT: &str = include_str!("openapi.json");

pub(crate) async fn serve() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    fn routes_of(directory: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                routes_of(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("openapi.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let routes = text.split(".route(").skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
                found.extend(routes.filter_map(|rest| Some(rest.split_once('"')?.0.replace("{*", "{"))));
            }
        }
    }

    #[test]
    fn every_route_is_documented_and_every_documented_one_is_a_route() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let documented: BTreeSet<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
        let mut routes = BTreeSet::new();
        routes_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut routes);
        assert_eq!(documented, routes);
    }

    #[test]
    fn references_lead_somewhere_and_operations_have_names_of_their_own() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        for reference in DOCUMENT.split("\"$ref\": \"#").skip(1) {
            let pointer = reference.split_once('"').unwrap().0;
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        let paths = document["paths"].as_object().unwrap();
        let operations: Vec<&Value> = paths.values().flat_map(|path| path.as_object().unwrap().values()).collect();
        let names: BTreeSet<&str> = operations.iter().map(|one| one["operationId"].as_str().unwrap()).collect();
        assert_eq!(names.len(), operations.len());
        for (path, methods) in paths {
            for operation in methods.as_object().unwrap().values() {
                let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
                let of_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
                for name in of_path.map(|parameter| parameter["name"].as_str().unwrap()) {
                    assert!(path.contains(&format!("{{{name}}}")), "{path}: {name}");
                }
            }
        }
    }
}
