import com.launchdarkly.eventsource.EventSource;
import com.launchdarkly.eventsource.MessageEvent;
import java.net.URI;

/** The pull interface with its defaults: the loop ends at the first error, a silence of 5 s too. */
public final class Messages {
  public static void main(String[] args) {
    try (EventSource source =
        new EventSource.Builder(URI.create(System.getenv("STREAM_URL"))).build()) {
      for (MessageEvent message : source.messages()) {
        Surfaced.print(message);
      }
    }
    System.err.println("the messages ended");
  }
}
