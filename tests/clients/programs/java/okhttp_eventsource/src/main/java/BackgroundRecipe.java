import com.launchdarkly.eventsource.ConnectStrategy;
import com.launchdarkly.eventsource.EventSource;
import com.launchdarkly.eventsource.background.BackgroundEventSource;
import java.net.URI;
import java.util.concurrent.TimeUnit;

/** The push interface with a read timeout above the interval of the service's heartbeats. */
public final class BackgroundRecipe {
  public static void main(String[] args) throws InterruptedException {
    EventSource.Builder source =
        new EventSource.Builder(
            ConnectStrategy.http(URI.create(System.getenv("STREAM_URL")))
                .readTimeout(45, TimeUnit.SECONDS));
    new BackgroundEventSource.Builder(new PrintingHandler(), source).build().start();
    Thread.currentThread().join();
  }
}
