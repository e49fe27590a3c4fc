import com.launchdarkly.eventsource.ErrorStrategy;
import com.launchdarkly.eventsource.EventSource;
import com.launchdarkly.eventsource.MessageEvent;
import java.net.URI;

/**
 * The pull interface, told to go on after errors: it then reconnects by itself. A heartbeat below the
 * read timeout of 5 s keeps a quiet stream open.
 */
public final class MessagesRecipe {
  public static void main(String[] args) {
    URI uri = URI.create(System.getenv("STREAM_URL") + "&heartbeat=3");
    try (EventSource source =
        new EventSource.Builder(uri).errorStrategy(ErrorStrategy.alwaysContinue()).build()) {
      for (MessageEvent message : source.messages()) {
        Surfaced.print(message);
      }
    }
  }
}
