import com.launchdarkly.eventsource.MessageEvent;
import com.launchdarkly.eventsource.background.BackgroundEventHandler;

/** What the push interface calls. */
final class PrintingHandler implements BackgroundEventHandler {
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
}
