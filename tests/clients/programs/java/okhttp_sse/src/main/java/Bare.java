import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;
import okhttp3.sse.EventSource;
import okhttp3.sse.EventSourceListener;
import okhttp3.sse.EventSources;

/** okhttp-sse with its defaults: one request, no reconnect, and a read timeout of 10 s. */
public final class Bare {
  public static void main(String[] args) {
    Request request = new Request.Builder().url(System.getenv("STREAM_URL")).build();
    EventSources.createFactory(new OkHttpClient())
        .newEventSource(
            request,
            new EventSourceListener() {
              @Override
              public void onEvent(EventSource source, String id, String type, String data) {
                Surfaced.print(type, id, data);
              }

              @Override
              public void onClosed(EventSource source) {
                System.err.println("closed");
              }

              @Override
              public void onFailure(EventSource source, Throwable error, Response response) {
                System.err.println("failed: " + error);
              }
            });
  }
}
