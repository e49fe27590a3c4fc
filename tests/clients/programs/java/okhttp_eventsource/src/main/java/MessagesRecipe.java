import com.launchdarkly.eventsource.ConnectStrategy;
import com.launchdarkly.eventsource.ErrorStrategy;
import com.launchdarkly.eventsource.EventSource;
import com.launchdarkly.eventsource.MessageEvent;
import java.net.URI;
import java.util.concurrent.TimeUnit;

/**
 * The pull interface, told to go on after errors: it then reconnects by itself. Its read timeout is
 * above the interval of the service's heartbeats.
 */
public final class MessagesRecipe {
  public static void main(String[] args) {
    EventSource.Builder builder =
        new EventSource.Builder(
                ConnectStrategy.http(URI.create(System.getenv("STREAM_URL")))
                    .readTimeout(45, TimeUnit.SECONDS))
            .errorStrategy(ErrorStrategy.alwaysContinue());
    try (EventSource source = builder.build()) {
      for (MessageEvent message : source.messages()) {
        Surfaced.print(message);
      }
    }
  }
}
