import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.Json;
import io.debezium.engine.format.KeyValueHeaderChangeEventFormat;
import java.io.FileReader;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;

/** Debezium's embedded engine with the settings of a file: a line for each message, until it is killed. */
public class Outbox {
    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.load(new FileReader(arguments[0]));
        DebeziumEngine<ChangeEvent<String, String>> engine = DebeziumEngine
                .create(KeyValueHeaderChangeEventFormat.of(Json.class, Json.class, Json.class))
                .using(settings)
                .using((success, message, error) -> System.err.println(message + " " + error))
                .notifying(Outbox::show)
                .build();
        engine.run();
    }

    private static void show(ChangeEvent<String, String> event) {
        Map<String, Object> headers = new TreeMap<>();
        event.headers().forEach(header -> headers.put(header.getKey(), header.getValue()));
        System.out.println(String.join("\t", event.destination(), event.key(), headers.toString(), event.value()));
    }
}
