import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;
import okhttp3.sse.EventSource;
import okhttp3.sse.EventSourceListener;
import okhttp3.sse.EventSources;

/**
 * okhttp-sse with what it leaves to its user: another request, with the last id, a second after each
 * one ended, unless the answer was a 4xx; and a read timeout above the interval of the heartbeats.
 */
public final class Recipe extends EventSourceListener {
  private final EventSource.Factory factory =
      EventSources.createFactory(
          new OkHttpClient.Builder().readTimeout(45, TimeUnit.SECONDS).build());
  private final ScheduledExecutorService timer = Executors.newSingleThreadScheduledExecutor();
  private volatile String lastId;

  public static void main(String[] args) {
    new Recipe().connect();
  }

  private void connect() {
    Request.Builder request = new Request.Builder().url(System.getenv("STREAM_URL"));
    if (lastId != null) {
      request.header("Last-Event-ID", lastId);
    }
    factory.newEventSource(request.build(), this);
  }

  @Override
  public void onEvent(EventSource source, String id, String type, String data) {
    if (id != null) {
      lastId = id;
    }
    Surfaced.print(type, id, data);
  }

  @Override
  public void onClosed(EventSource source) {
    timer.schedule(this::connect, 1, TimeUnit.SECONDS);
  }

  @Override
  public void onFailure(EventSource source, Throwable error, Response response) {
    System.err.println("failed: " + error);
    if (response == null || response.code() < 400 || response.code() > 499) {
      timer.schedule(this::connect, 1, TimeUnit.SECONDS);
    }
  }
}
