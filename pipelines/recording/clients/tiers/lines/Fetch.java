// Java's HttpClient: reads METHOD TAB URL TAB BODY a line, answers with the status.
import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class Fetch {
    public static void main(String[] arguments) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (FileInputStream file = new FileInputStream(System.getenv("JA4REC_CA"))) {
            store.setCertificateEntry("recording", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        HttpClient client = HttpClient.newBuilder().sslContext(context).build();
        String told = System.getenv("JA4REC_TOLD");
        String headers = told.substring(told.indexOf("\"headers\"") + 10, told.indexOf("}"));
        Pattern pair = Pattern.compile("\"([^\"]+)\": \"((?:[^\"\\\\]|\\\\.)*)\"");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] parts = line.split("\t", 3);
            HttpRequest.BodyPublisher body = parts[2].isEmpty()
                ? HttpRequest.BodyPublishers.noBody() : HttpRequest.BodyPublishers.ofString(parts[2]);
            HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(parts[1])).method(parts[0], body)
                .timeout(Duration.ofSeconds(20));
            for (Matcher found = pair.matcher(headers); found.find();) {
                request.header(found.group(1), found.group(2).replace("\\\"", "\""));
            }
            if (!parts[2].isEmpty()) request.header("Content-Type", "application/x-www-form-urlencoded");
            int status = 0;
            try {
                status = client.send(request.build(), HttpResponse.BodyHandlers.discarding()).statusCode();
            } catch (java.io.IOException error) {
                System.err.println(error);
            }
            System.out.println(status);
        }
        System.exit(0);
    }
}
