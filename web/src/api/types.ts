/** The types of the API by short names. They are generated from its OpenAPI document (`npm run types`). */

import type { api } from './client';
import type { components } from './schema';

type Schemas = components['schemas'];

export type Machine = Schemas['MachineView'];
export type MachineState = Schemas['MachineState'];
export type Report = Schemas['Machine'];
export type Disk = Schemas['Disk'];
export type MachineGroup = Schemas['MachineGroup'];
export type MachineChange = Schemas['MachineChange'];
export type NewMachine = Schemas['NewMachine'];
export type NewMachines = Schemas['NewMachines'];
export type AddedMachines = Schemas['AddedMachines'];
export type Reach = Schemas['Reach'];
export type HistoryEntry = Schemas['HistoryEntry'];
export type HistoryEvent = Schemas['HistoryEvent'];
export type Candidate = Schemas['Candidate'];
export type Search = Schemas['SearchView'];
export type NewSearch = Schemas['NewSearch'];
export type FoundHost = Schemas['FoundHost'];
export type Volume = Schemas['Volume'];
export type Part = Schemas['Part'];

/** As the client returns it, which has tuples as arrays. */
export type Task = Awaited<ReturnType<typeof api.task>>;
export type TaskState = Schemas['TaskState'];
export type TaskSchedule = Schemas['TaskSchedule'];
export type NewConversion = Schemas['NewConversion'];
export type Rcc = Schemas['Rcc'];
export type OutputFormat = Schemas['OutputFormat'];
export type Allocation = Schemas['Allocation'];
export type DiskSetting = Schemas['DiskSetting'];
export type TaskStep = Schemas['TaskStep'];
export type Profile = Schemas['Profile'];
export type NewProfile = Schemas['NewProfile'];
export type TaskSettings = Schemas['Settings'];
export type Preflight = Schemas['PreflightView'];
export type Finding = Schemas['Finding'];
export type Cutover = Schemas['Cutover'];
export type CutoverState = Schemas['CutoverState'];
export type CutoverWish = Schemas['CutoverWish'];
export type LogEntry = Schemas['LogEntry'];
export type Outcome = NonNullable<Task['outcome']>;
export type Proof = Schemas['Proof'];
export type Verdict = Schemas['Verdict'];

export type PxePolicy = Schemas['PxePolicy'];
export type PxeRule = Schemas['PxeRule'];
export type PxeRecord = Schemas['Record'];
export type Driver = Schemas['Driver'];
export type Limits = Schemas['Limits'];
export type RateWindow = Schemas['RateWindow'];
export type Credential = Schemas['Credential'];
export type CredentialKind = Schemas['CredentialKind'];
export type NewCredential = Schemas['NewCredential'];
export type Agent = Schemas['AgentView'];
export type EnrolmentToken = Schemas['EnrolmentRecord'];
export type NewEnrolment = Schemas['NewEnrolment'];
export type AuditEntry = Schemas['AuditEntry'];
export type Status = Schemas['Status'];

export type Session = Schemas['SessionView'];
export type Role = Schemas['Role'];
export type User = Schemas['User'];
export type NewUser = Schemas['NewUser'];
export type UserChange = Schemas['UserChange'];
export type ApiToken = Schemas['ApiToken'];
export type NewToken = Schemas['NewToken'];
