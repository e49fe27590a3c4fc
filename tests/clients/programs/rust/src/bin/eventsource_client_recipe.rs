//! LaunchDarkly's eventsource-client, polled on after an error: it then reconnects by itself.
//! `retry_initial` covers a service that is not up yet.

use std::time::Duration;

use eventsource_client::{Client, ClientBuilder, ReconnectOptions, SSE};
use futures::StreamExt;
use launchdarkly_sdk_transport::HyperTransport;
use stream_clients::print_surfaced;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let transport = HyperTransport::builder()
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(30))
        .build_http()?;
    let client = ClientBuilder::for_url(&std::env::var("STREAM_URL")?)?
        .reconnect(
            ReconnectOptions::reconnect(true)
                .retry_initial(true)
                .build(),
        )
        .build_with_transport(transport);
    let mut stream = client.stream();

    while let Some(event) = stream.next().await {
        match event {
            Ok(SSE::Event(event)) => {
                print_surfaced(&event.event_type, event.id.as_deref(), &event.data)
            }
            Ok(SSE::Comment(comment)) => eprintln!("comment: {comment}"),
            Ok(SSE::Connected(_)) => eprintln!("connected"),
            Err(error) => eprintln!("error: {error}"),
        }
    }

    Ok(())
}
