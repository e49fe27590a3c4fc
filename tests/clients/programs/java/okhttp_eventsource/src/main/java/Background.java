import com.launchdarkly.eventsource.EventSource;
import com.launchdarkly.eventsource.background.BackgroundEventSource;
import java.net.URI;

/** The push interface with its defaults: it reconnects by itself, after a silence of 5 s too. */
public final class Background {
  public static void main(String[] args) throws InterruptedException {
    EventSource.Builder source =
        new EventSource.Builder(URI.create(System.getenv("STREAM_URL")));
    new BackgroundEventSource.Builder(new PrintingHandler(), source).build().start();
    // The library's threads are daemons.
    Thread.currentThread().join();
  }
}
