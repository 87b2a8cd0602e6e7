// The camera and the microphone, asked for only when the user presses the button, and let go right after.
import { useEffect, useRef, useState } from "preact/hooks";
import { still } from "./media";

const LONGEST_MS = 30_000;

type Props = { taken: (file: File) => void; failed: (why: string) => void };

export function Camera({ taken, failed }: Props) {
  const [stream, setStream] = useState<MediaStream | null>(null);
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    if (video.current && stream) video.current.srcObject = stream;
    return () => stream?.getTracks().forEach((track) => track.stop());
  }, [stream]);
  const open = () =>
    media({ video: { facingMode: "environment" } }).then(setStream, () =>
      failed("The camera cannot be used: there is none, or this page may not."),
    );
  const shoot = async () => {
    const { videoWidth, videoHeight } = video.current!;
    const blob = await still(video.current!, videoWidth, videoHeight);
    taken(new File([blob], "camera.jpg", { type: "image/jpeg" }));
    setStream(null);
  };
  if (!stream)
    return (
      <button type="button" onClick={open}>
        Use the camera
      </button>
    );
  return (
    <div class="camera">
      <video ref={video} autoPlay playsInline muted aria-label="What the camera sees" />
      <button type="button" class="primary" onClick={shoot}>
        Take the picture
      </button>
      <button type="button" onClick={() => setStream(null)}>
        Cancel
      </button>
    </div>
  );
}

export function Microphone({ taken, failed }: Props) {
  const [recorder, setRecorder] = useState<MediaRecorder | null>(null);
  const record = async () => {
    try {
      const stream = await media({ audio: true });
      const made = new MediaRecorder(stream);
      const parts: Blob[] = [];
      made.ondataavailable = ({ data }) => parts.push(data);
      made.onstop = () => {
        stream.getTracks().forEach((track) => track.stop());
        setRecorder(null);
        taken(new File(parts, "recording", { type: made.mimeType }));
      };
      made.start();
      setTimeout(() => made.state === "recording" && made.stop(), LONGEST_MS);
      setRecorder(made);
    } catch {
      failed("The microphone cannot be used: there is none, or this page may not.");
    }
  };
  return recorder ? (
    <button type="button" class="primary" onClick={() => recorder.stop()}>
      ■ Stop recording
    </button>
  ) : (
    <button type="button" onClick={record}>
      Record
    </button>
  );
}

/** Browsers give devices only to pages of this machine, or over HTTPS. */
function media(wanted: MediaStreamConstraints): Promise<MediaStream> {
  if (!navigator.mediaDevices) return Promise.reject(new Error("not a secure page"));
  return navigator.mediaDevices.getUserMedia(wanted);
}
