//! LaunchDarkly's eventsource-client as its README shows it: `?` leaves the loop at the first error,
//! and the end of a response is one.

use std::time::Duration;

use eventsource_client::{Client, ClientBuilder, SSE};
use futures::TryStreamExt;
use launchdarkly_sdk_transport::HyperTransport;
use stream_clients::print_surfaced;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let transport = HyperTransport::builder()
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(30))
        .build_http()?;
    let client =
        ClientBuilder::for_url(&std::env::var("STREAM_URL")?)?.build_with_transport(transport);
    let mut stream = client.stream();

    while let Some(event) = stream.try_next().await? {
        match event {
            SSE::Event(event) => {
                print_surfaced(&event.event_type, event.id.as_deref(), &event.data)
            }
            SSE::Comment(comment) => eprintln!("comment: {comment}"),
            SSE::Connected(_) => eprintln!("connected"),
        }
    }

    Ok(())
}
