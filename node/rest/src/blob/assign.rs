//! Handing out fids, telling where volumes are, and making volumes ready.
//!
//! Invariants: a fid is of a volume whose primary is on the node that was asked for; a wish for a code or a
//! place that can't be met is refused with what is missing, never passed over.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use http_body_util::{BodyExt, Limited};
use meridian_object::{BlobError, BlobNode};
use meridian_types::{Fid, NodeId, ReplicaCode, VolumeId};
use serde_json::{Value, json};

use super::BlobState;
use super::answer::{json_answer, refuse, refuse_blob};
use super::write::ttl_ms;

/// Longest form of arguments, in bytes.
const FORM_SIZE_MAX: usize = 8 << 10;
/// Set on a request that another node has sent here: it is not sent on.
const SENT_ON: &str = "sentOn";

/// The arguments of a request, from its query and from its form.
struct Arguments(Vec<(String, String)>);

impl Arguments {
    async fn take(parts: &Parts, body: Body) -> Result<Self, Box<Response>> {
        let refused = |status, reason: &str| Err(Box::new(refuse(&parts.uri, status, reason)));
        let mut pairs = parse(parts.uri.query().unwrap_or("").as_bytes());
        if parts.method == Method::POST {
            let Ok(form) = Limited::new(body, FORM_SIZE_MAX).collect().await else {
                return refused(StatusCode::PAYLOAD_TOO_LARGE, "a form of arguments has at most 8 KiB");
            };
            let form = form.to_bytes();
            let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let is_form = content_type.is_none_or(|value| value.starts_with("application/x-www-form-urlencoded"));
            if !form.is_empty() && !is_form {
                let reason = "arguments come in the query or as application/x-www-form-urlencoded";
                return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason);
            }
            pairs.extend(parse(&form));
        }
        Ok(Self(pairs))
    }

    /// The last value of a name, if it is not empty.
    fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn parsed<T: std::str::FromStr>(&self, name: &'static str, expected: &str) -> Result<Option<T>, BlobError> {
        let reason = || format!("{expected} is expected");
        let parsed = self.text(name).map(str::parse).transpose();
        parsed.map_err(|_| BlobError::InvalidArgument { argument: name, reason: reason() })
    }
}

fn parse(text: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(text).into_owned().collect()
}

pub(crate) async fn assign(State(state): State<BlobState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if let Err(error) = state.may_assign(&parts).await {
        return refuse(&parts.uri, StatusCode::FORBIDDEN, &error.to_string());
    }
    let arguments = match Arguments::take(&parts, body).await {
        Ok(arguments) => arguments,
        Err(refusal) => return *refusal,
    };
    match assigned(&state, &arguments, &parts.uri).await {
        Ok(response) => response,
        Err(error) => refuse_blob(&parts.uri, &error),
    }
}

async fn assigned(state: &BlobState, arguments: &Arguments, uri: &Uri) -> Result<Response, BlobError> {
    let code: Option<ReplicaCode> = arguments.parsed("replication", "a code such as 000 or 110")?;
    let count = arguments.parsed("count", "a number")?.unwrap_or(1);
    if let Some(ttl) = arguments.text("ttl") {
        // It counts at the write: a volume holds blobs of every age.
        ttl_ms(ttl).map_err(|reason| BlobError::InvalidArgument { argument: "ttl", reason })?;
    }
    let own = state.objects.node_id();
    let node = chosen_node(state, arguments, own)?;
    if node.id != own {
        if arguments.text(SENT_ON).is_some() {
            return Err(BlobError::Unavailable(format!("node {} is to be asked itself", node.name)));
        }
        return Ok(sent_on(state.scheme, uri, &node, arguments));
    }
    let grant = state.objects.assign_blobs(count, code).await?;
    let answer = json!({
        "fid": grant.first.to_string(),
        "url": node.rest,
        "publicUrl": node.rest,
        "count": grant.count,
        "auth": grant.token,
    });
    Ok(json_answer(uri, StatusCode::OK, &answer))
}

/// The node whose volume is wanted: this one if it will do.
fn chosen_node(state: &BlobState, arguments: &Arguments, own: NodeId) -> Result<BlobNode, BlobError> {
    let (_, region) = state.objects.placement_defaults();
    if let Some(datacenter) = arguments.text("dataCenter").filter(|name| *name != region.as_str()) {
        let text = format!("this is a node of datacenter {region}: ask one of {datacenter} for its fids");
        return Err(BlobError::Impossible(text));
    }
    let (rack, name) = (arguments.text("rack"), arguments.text("dataNode"));
    let mut nodes = state.objects.blob_nodes();
    nodes.retain(|node| {
        rack.is_none_or(|rack| node.rack == rack)
            && name.is_none_or(|name| node.name == name || node.rest == name || node.id.0.to_string() == name)
    });
    if nodes.is_empty() {
        let wish = [("rack", rack), ("node", name)];
        let wish: Vec<_> = wish.iter().filter_map(|(what, name)| Some(format!("{what} {}", (*name)?))).collect();
        return Err(BlobError::Impossible(format!("datacenter {region} has no {}", wish.join(" with "))));
    }
    let wanted = nodes.iter().position(|node| node.id == own).or_else(|| nodes.iter().position(|node| node.live));
    let names = || nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>().join(", ");
    let wanted = wanted.ok_or_else(|| BlobError::Unavailable(format!("not live: {}", names())))?;
    Ok(nodes.swap_remove(wanted))
}

/// The same question to another node, which this one's volumes can't answer.
fn sent_on(scheme: &str, uri: &Uri, node: &BlobNode, arguments: &Arguments) -> Response {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(&arguments.0).append_pair(SENT_ON, "y");
    let location = format!("{scheme}://{}{}?{}", node.rest, uri.path(), query.finish());
    let mut response = refuse(uri, StatusCode::TEMPORARY_REDIRECT, &format!("ask node {}", node.name));
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

pub(crate) async fn lookup(State(state): State<BlobState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let arguments = match Arguments::take(&parts, body).await {
        Ok(arguments) => arguments,
        Err(refusal) => return *refusal,
    };
    let asked = arguments.text("volumeId").or(arguments.text("fileId")).unwrap_or_default();
    let volume = asked.split([',', '/']).next().unwrap_or_default();
    let is_named = arguments.text("volumeId").is_some() || asked.parse::<Fid>().is_ok();
    let known = volume.parse().ok().filter(|_| is_named).and_then(|raw| VolumeId::from_raw(raw).ok());
    let nodes = known.map(|known| state.objects.volume_nodes(known));
    match nodes {
        None => {
            let answer = json!({ "volumeId": asked, "error": "name a volumeId, or a fileId such as 3,01637037d6" });
            json_answer(&parts.uri, StatusCode::BAD_REQUEST, &answer)
        }
        Some(Err(_)) => {
            let answer = json!({ "volumeId": volume, "error": format!("volume {volume} is not known here") });
            json_answer(&parts.uri, StatusCode::NOT_FOUND, &answer)
        }
        Some(Ok(holders)) => {
            let nodes = state.objects.blob_nodes();
            let held = nodes.iter().filter(|node| holders.contains(&node.id));
            let locations: Vec<Value> = held.map(|node| json!({ "url": node.rest, "publicUrl": node.rest })).collect();
            json_answer(&parts.uri, StatusCode::OK, &json!({ "volumeId": volume, "locations": locations }))
        }
    }
}

pub(crate) async fn grow(State(state): State<BlobState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if let Err(error) = state.may_assign(&parts).await {
        return refuse(&parts.uri, StatusCode::FORBIDDEN, &error.to_string());
    }
    let arguments = match Arguments::take(&parts, body).await {
        Ok(arguments) => arguments,
        Err(refusal) => return *refusal,
    };
    let grown = async {
        let code = arguments.parsed("replication", "a code such as 000 or 110")?;
        let _: Option<u32> = arguments.parsed("count", "a number")?;
        state.objects.grow_volumes(code).await
    };
    match grown.await {
        Ok(count) => json_answer(&parts.uri, StatusCode::OK, &json!({ "count": count })),
        Err(error) => refuse_blob(&parts.uri, &error),
    }
}
