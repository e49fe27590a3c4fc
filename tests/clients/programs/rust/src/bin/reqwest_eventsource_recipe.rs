//! reqwest-eventsource without the `close` of its README's example: it then reconnects by itself.
//! It closes itself on any status but 200.

use futures::StreamExt;
use reqwest_eventsource::{Event, EventSource};
use stream_clients::print_surfaced;

#[tokio::main]
async fn main() {
    let url = std::env::var("STREAM_URL").expect("STREAM_URL");
    let mut source = EventSource::get(url);
    while let Some(event) = source.next().await {
        match event {
            Ok(Event::Open) => eprintln!("open"),
            Ok(Event::Message(message)) => {
                print_surfaced(&message.event, Some(&message.id), &message.data)
            }
            Err(error) => eprintln!("error: {error}"),
        }
    }
}
