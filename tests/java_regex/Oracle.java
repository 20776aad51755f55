import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.regex.Pattern;
import java.util.regex.PatternSyntaxException;

/**
 * What Java itself says. Standard input: per line a pattern and names, each UTF-8 in hexadecimal, separated by blanks.
 * Standard output: per line "refused", or one letter per name: "y", "n", or "t" if it takes too long.
 */
final class Oracle {
    /** A name that counts how often it is looked at, and ends a search that runs away. */
    private static final class Name implements CharSequence {
        private final String text;
        private int looks;

        Name(String text) {
            this.text = text;
        }

        @Override
        public char charAt(int index) {
            if (++looks > 2_000_000) {
                throw new IllegalStateException();
            }
            return text.charAt(index);
        }

        @Override
        public int length() {
            return text.length();
        }

        @Override
        public CharSequence subSequence(int start, int end) {
            return text.subSequence(start, end);
        }

        @Override
        public String toString() {
            return text;
        }
    }

    private static String decode(String hex) {
        return new String(HexFormat.of().parseHex(hex), StandardCharsets.UTF_8);
    }

    private static String answer(String line) {
        String[] words = line.split(" ", -1);
        Pattern pattern;
        try {
            pattern = Pattern.compile(decode(words[0]));
        } catch (PatternSyntaxException refused) {
            return "refused";
        }
        StringBuilder verdicts = new StringBuilder();
        for (int i = 1; i < words.length; i++) {
            char verdict;
            try {
                verdict = pattern.matcher(new Name(decode(words[i]))).matches() ? 'y' : 'n';
            } catch (IllegalStateException | StackOverflowError tooLong) {
                verdict = 't';
            }
            verdicts.append(verdict);
        }
        return verdicts.toString();
    }

    public static void main(String[] arguments) throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.US_ASCII);
        out.println(System.getProperty("java.version"));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            out.println(answer(line));
        }
        out.flush();
    }
}
