import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
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

  static void print(String event, String id, String data) {
    Map<String, String> fields = new LinkedHashMap<>();
    fields.put("event", event);
    fields.put("id", id);
    fields.put("data", data);
    OUT.println(GSON.toJson(fields));
  }
}
