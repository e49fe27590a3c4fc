import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;
import okhttp3.sse.EventSource;
import okhttp3.sse.EventSourceListener;
import okhttp3.sse.EventSources;

/** okhttp-sse with its defaults: one request, no reconnect, and a read timeout of 10 s. */
public final class Bare extends EventSourceListener {
  private static final OkHttpClient CLIENT = new OkHttpClient();

  public static void main(String[] args) {
    Request request = new Request.Builder().url(System.getenv("STREAM_URL")).build();
    EventSources.createFactory(CLIENT).newEventSource(request, new Bare());
  }

  @Override
  public void onEvent(EventSource source, String id, String type, String data) {
    Surfaced.print(type, id, data);
  }

  @Override
  public void onClosed(EventSource source) {
    System.err.println("closed");
    end();
  }

  @Override
  public void onFailure(EventSource source, Throwable error, Response response) {
    System.err.println("failed: " + error);
    end();
  }

  /** Nothing comes any more; without this the library's threads keep the process for a minute. */
  private static void end() {
    CLIENT.dispatcher().executorService().shutdown();
  }
}
