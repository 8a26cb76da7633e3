import com.amazonaws.services.dynamodbv2.local.main.ServerRunner;
import com.amazonaws.services.dynamodbv2.local.server.DynamoDBProxyServer;
import java.lang.reflect.Field;
import org.eclipse.jetty.server.Connector;
import org.eclipse.jetty.server.Server;

/** Starts DynamoDB local on loopback, where it would take every interface; it ends with whoever started it. */
public final class LoopbackDynamoDb {
    public static void main(String[] arguments) throws Exception {
        // A kill of LocalStack would leave it running.
        ProcessHandle.current().parent().orElseThrow().onExit().thenRun(() -> Runtime.getRuntime().halt(1));
        DynamoDBProxyServer proxy = ServerRunner.createServerFromCommandLineArgs(arguments);
        Field server = DynamoDBProxyServer.class.getDeclaredField("server");
        server.setAccessible(true);
        for (Connector connector : ((Server) server.get(proxy)).getConnectors()) {
            connector.setHost("127.0.0.1");
        }
        proxy.start();
        proxy.join();
    }

    /** LocalStack starts it with an agent that would raise a limit on indexes. This stands in for that one. */
    public static void premain(String arguments) {}
}
