import com.launchdarkly.eventsource.EventSource;
import com.launchdarkly.eventsource.MessageEvent;
import com.launchdarkly.eventsource.background.BackgroundEventHandler;
import com.launchdarkly.eventsource.background.BackgroundEventSource;
import java.net.URI;

/** The push interface with its defaults: it reconnects by itself, after a silence of 5 s too. */
public final class Background {
  public static void main(String[] args) throws InterruptedException {
    BackgroundEventHandler handler =
        new BackgroundEventHandler() {
          @Override
          public void onOpen() {
            System.err.println("open");
          }

          @Override
          public void onClosed() {
            System.err.println("closed");
          }

          @Override
          public void onMessage(String event, MessageEvent message) {
            Surfaced.print(message);
          }

          @Override
          public void onComment(String comment) {}

          @Override
          public void onError(Throwable error) {
            System.err.println("error: " + error);
          }
        };
    BackgroundEventSource source =
        new BackgroundEventSource.Builder(
                handler, new EventSource.Builder(URI.create(System.getenv("STREAM_URL"))))
            .build();
    source.start();
    // The library's threads are daemons.
    Thread.currentThread().join();
  }
}
