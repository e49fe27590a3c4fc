import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.launchdarkly.eventsource.MessageEvent;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

/** Prints what the client hands to its user, one JSON object a line. */
final class Surfaced {
  private static final Gson GSON = new GsonBuilder().serializeNulls().create();

  /** System.out would take its charset from the locale. */
  private static final PrintStream OUT =
      new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);

  private Surfaced() {}

  static void print(MessageEvent message) {
    Map<String, String> fields = new LinkedHashMap<>();
    fields.put("event", message.getEventName());
    fields.put("id", message.getLastEventId());
    fields.put("data", message.getData());
    OUT.println(GSON.toJson(fields));
  }
}
