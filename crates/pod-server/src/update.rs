//! `PUT`: the whole object, or the part of it that a subresource is.

use http::{Response, StatusCode};
use hyper::body::Incoming;
use pod_api::failure::Failure;

use crate::body::Body;
use crate::input::{self, Warnings};
use crate::server::{Ask, Server};
use crate::write::{self, Made, Options};

pub(crate) async fn serve(server: &Server, ask: &Ask, content: Incoming) -> Result<Response<Body>, Failure> {
    let options = Options::parse(&ask.query, &ask.headers, "UpdateOptions", false)?;
    let bytes = input::read(content).await?;
    let text = input::parse(&ask.headers, &bytes, ask.target.resource.kind)?;
    let mut decoding = Warnings::default();
    let wanted = input::fit(ask.target.resource, text, options.validation, &mut decoding)?;
    let make = |_: &serde_json::Value, _: &mut Warnings| Ok(Made { value: wanted.clone(), tracked: false });
    let mut warnings = Warnings::default();
    let written = write::change(server, &ask.target, &options, &mut warnings, make).await?;
    Ok(written.answer(server, ask, StatusCode::OK, decoding))
}
